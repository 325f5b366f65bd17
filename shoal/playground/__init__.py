"""A multi-host cluster on one Linux machine: every host is a set of namespaces with its own `shoald`."""
