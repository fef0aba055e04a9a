"""A second app for the site. Its tasks record how often they took effect."""
