"""Input and output: token IDs in, results and messages out.

`formats` turns records into text. `files` and `jsonl` take text and put it somewhere: these are the two layers of the
output. `streams` keeps slow pipes and terminals from blocking the event loop. `ids` reads token IDs. `console` and
`progress` write to standard error.
"""
