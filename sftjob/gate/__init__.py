"""The gate: a small loop beside a run that lets its evaluation start when training is durable, and not before.

It starts as `python -m sftjob.gate`, needs no GPU and no torch, and may touch two objects only: it reads the train Job
(or JobSet), and reads, changes and deletes the eval Job.
"""
