"""The words of ``hostwarden.policy.words`` as -D flags: the one place where the kernel's half learns them."""

from hostwarden.policy.words import Action, Mode, Outcome, RecordMode, Tier, Verdict, Word

WORDS: dict[str, type[Word]] = {
    "ACTION": Action,
    "VERDICT": Verdict,
    "MODE": Mode,
    "RECORD": RecordMode,
    "TIER": Tier,
    "OUTCOME": Outcome,
}
PAGE = 4096


def defines(denials_ring_kib: int, events_ring_kib: int) -> dict[str, int]:
    """All flags that the loader passes on."""
    flags = {f"{prefix}_{word.name}": int(word) for prefix, words in WORDS.items() for word in words}
    return flags | {
        "N_ACTIONS": len(Action),
        "N_VERDICTS": len(Verdict),
        "DENIALS_PAGES": denials_ring_kib * 1024 // PAGE,
        "EVENTS_PAGES": events_ring_kib * 1024 // PAGE,
    }
