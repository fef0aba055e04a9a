from django.urls import path

from tokens import views

app_name = "tokens"

urlpatterns = [
    path("", views.home, name="home"),
    path("progress/", views.progress, name="progress"),
    path("generate/", views.generate, name="generate"),
    path("generate-in-background/", views.generate_in_background, name="generate_in_background"),
    path("retry/", views.retry, name="retry"),
    path("delete/", views.delete, name="delete"),
    path("delete-all/", views.delete_all, name="delete_all"),
]
