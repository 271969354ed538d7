"""An ad model outside of training: the scores of a day, and an exported folder that scores requests."""
