"""The wheels that the engines' CPU builds need and no index has."""
