"""How much of what goes wrong is borne: seeded cases by the thousand, counted. `python -m tests.reliability --help`

suites.py         the suites by name; a suite is one file here that registers itself
runner.py         one process that works on cases, watched from outside: its time, its memory, its death
worker.py         that process
rows.py           the counts, in docs/reliability.json and in the table of docs/reliability.md
inputs.py         pictures as tensors, and the options of an upscale
checkpoints.py    checkpoints that were changed
peft_folders.py   adapters of the peft library that were changed
pictures.py       picture files that are damaged, huge, or something else
trainer.py        a training that is killed and goes on
faults.py         upscales that break off; the kinds are in fault_tiles.py, fault_disk.py and fault_kill.py,
                  and fault_process.py runs the command line in a process of its own
server.py         prompts of all sizes, and ones that nobody sends, through a real server
"""
