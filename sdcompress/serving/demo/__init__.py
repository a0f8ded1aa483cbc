"""A page for trying the models of a service: it asks by the protocol, and by a few paths of its own below /demo."""
