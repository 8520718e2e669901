"""The stand-in of tests/fakes/engine.py as an engine that the roles deploy: wheels that uv installs from a lock with
hashes, a command line and a parser with the options of vLLM, and a start that looks like vLLM's in the journal.

``python -m tests.fakes.standin --lab NAME`` makes wheels and locks for a lab; tests/fakes/fleet is the inventory that
goes beside inventories/lab. What runs on a host is ``engine.py`` and the modules here that ``wheels.SHIPPED`` names:
standard library only, Python 3.9 and newer.
"""
