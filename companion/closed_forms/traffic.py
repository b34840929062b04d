"""What synchronized statistics cost in messages."""

from __future__ import annotations

from ._checks import check_positive

__all__ = ["collective_traffic", "sync_cost"]


def collective_traffic(
    ranks: int, values: int, operation: str = "all_gather", schedule: str = "ring"
) -> tuple[int, float]:
    """How many steps a collective operation takes, and how many values each rank sends in all.

    ==========  =================  ==================
    schedule    all_gather         all_reduce
    ==========  =================  ==================
    ring        p-1, (p-1)·n       2(p-1), 2(p-1)n/p
    tree        ⌈log₂p⌉, (p-1)·n   ⌈log₂p⌉, ⌈log₂p⌉·n
    ==========  =================  ==================

    Parameters
    ----------
    ranks
        p, at least 1
    values
        n; what each rank contributes to an ``all_gather``, or adds in an ``all_reduce``
    operation
        ``"all_gather"`` or ``"all_reduce"``
    schedule
        ``"ring"``, what gloo does, or ``"tree"``, recursive doubling, which needs a power of two
        ranks; with other numbers an ``all_reduce`` takes up to two steps more

    Raises
    ------
    ValueError
        fewer than 1 rank, a negative number of values, or another operation or schedule

    References
    ----------
    Thakur, Rabenseifner & Gropp (2005), "Optimization of Collective Communication Operations in
    MPICH", International Journal of High Performance Computing Applications 19, 49.

    Examples
    --------
    >>> collective_traffic(4, 129), collective_traffic(4, 128, "all_reduce")
    ((3, 387.0), (6, 192.0))
    """
    if ranks < 1:
        raise ValueError(f"ranks: expected at least 1, got {ranks}")
    if values < 0:
        raise ValueError(f"values: expected a number not below 0, got {values}")
    if operation not in ("all_gather", "all_reduce"):
        raise ValueError(f"operation: expected 'all_gather' or 'all_reduce', got {operation!r}")
    if schedule not in ("ring", "tree"):
        raise ValueError(f"schedule: expected 'ring' or 'tree', got {schedule!r}")
    others, doublings = ranks - 1, (ranks - 1).bit_length()
    if operation == "all_gather":
        return others if schedule == "ring" else doublings, float(others * values)
    if schedule == "ring":
        return 2 * others, 2.0 * others / ranks * values
    return doublings, float(doublings * values)


def sync_cost(
    ranks: int,
    values: int,
    latency: float,
    bandwidth: float,
    *,
    operation: str = "all_gather",
    schedule: str = "ring",
) -> float:
    """Seconds for a message of synchronized batch normalization: steps·latency + bytes/bandwidth.

    A layer of C channels sends 2C + 1 float64 values forward, by an ``all_gather``, and 2C
    backward, by an ``all_reduce``.

    Parameters
    ----------
    ranks, values, operation, schedule
        as in :func:`collective_traffic`
    latency
        seconds of a step, however small the message; positive
    bandwidth
        bytes per second that a rank sends; positive, may be infinite

    Raises
    ------
    ValueError
        as :func:`collective_traffic`, or a latency or bandwidth that is not positive

    References
    ----------
    The model of Hockney (1994), "The communication challenge for MPP", Parallel Computing 20, 389;
    steps and bytes are :func:`collective_traffic`'s.

    Examples
    --------
    >>> round(1e6 * sync_cost(8, 129, latency=20e-6, bandwidth=1e9), 1)  # microseconds
    147.2
    >>> round(1e6 * sync_cost(8, 129, 20e-6, 1e9, schedule="tree"), 1)
    67.2
    """
    check_positive("latency", latency)
    check_positive("bandwidth", bandwidth)
    steps, sent = collective_traffic(ranks, values, operation, schedule)
    return steps * latency + 8 * sent / bandwidth
