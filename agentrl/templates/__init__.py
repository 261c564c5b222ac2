"""Chat templates: messages to tokens and back, whatever a template can or cannot show."""
