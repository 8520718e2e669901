"""A third engine, to prove that one is a module, a line in the registry and a role.

``toy.py`` is what goes to plugins/module_utils/engines/, ``role`` is what goes to roles/toy, ``server.py`` is the
engine itself: the stand-in of tests/fakes/engine.py under a command line, options, journal and metrics of its own.
``overlay.py`` makes a copy of the collection that has it.
"""
