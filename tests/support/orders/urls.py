from config import urls
from django.urls import path
from orders.views import place

handler500 = urls.handler500
urlpatterns = [path("orders/<task>/<trouble>", place), *urls.urlpatterns]
