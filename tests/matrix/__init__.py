"""The versions that the collection supports, each tried: ansible-core on the controller, Python on hosts.

`script/test matrix` runs all cells, `script/test matrix -- target-3.9` some. Each has an environment of its own under
`.cache/matrix`, from a lock.
"""
