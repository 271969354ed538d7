"""An ad model outside of training: a day's scores, and a folder that scores requests by itself."""
