"""How fast is it, and how exact: what ``python -m companion bench`` measures.

Read in this order: ``suite``, the cases; ``operations``, what is called; ``timing``, how calls are
timed against each other; ``spread``, what is concluded from the samples; ``accuracy``, the errors;
``measure``, all of it for one case; ``document``, the file that is written; ``report``, the text
that is printed; ``cuda``, what differs on a GPU; ``machine``, where it ran; ``session``, a whole
run; ``command``, the options. Apart from these, ``sync``, ``sync_worker`` and
``sync_model`` measure what synchronization over processes costs, and ``models`` and ``networks``
whole networks.

``import companion`` imports nothing of this.
"""
