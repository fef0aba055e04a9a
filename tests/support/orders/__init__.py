"""A second app for the site, whose tasks show how often they took effect."""
