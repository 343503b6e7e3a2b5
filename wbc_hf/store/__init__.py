"""Specimens that last: a database and files beside it, a work list, backup. Off unless a folder is named."""

from wbc_hf.store.backup import back_up, restore
from wbc_hf.store.specimens import KeptSpecimen, SpecimenStore
from wbc_hf.store.work_list import State, WorkItem, WorkList

__all__ = ["KeptSpecimen", "SpecimenStore", "State", "WorkItem", "WorkList", "back_up", "restore"]
