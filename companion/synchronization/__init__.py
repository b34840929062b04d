"""Batch normalization over the processes of ``torch.distributed``: what lies below the layer.

Read in this order: ``messages``, what is sent; ``channels``, how, and what is said when it fails;
``operators``, the forward and the backward pass around it. The function is
:func:`companion.functional.sync_batch_norm`, the layer is in ``companion.variants.synchronized``.
"""
