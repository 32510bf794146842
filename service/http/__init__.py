"""The HTTP face of a node: routes, authentication, errors as RFC 9457 problems."""
