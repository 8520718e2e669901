"""The supported versions, each tested: ansible-core on the controller, Python on hosts.

`script/test matrix` runs all cells, `script/test matrix -- target-3.9` some. Each has its own environment under
`.cache/matrix`, from a lock.
"""
