"""Published methods that are one class each, at one of the seams; nothing else imports them."""
