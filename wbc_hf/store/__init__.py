"""Specimens that last, in a folder or a PostgreSQL database: a work list, backup. Off unless a place is named."""

from wbc_hf.store.backup import back_up, restore
from wbc_hf.store.kept_specimen import KeptSpecimen
from wbc_hf.store.postgresql import is_address
from wbc_hf.store.specimens import SpecimenStore
from wbc_hf.store.work_list import State, WorkItem, WorkList

__all__ = ["KeptSpecimen", "SpecimenStore", "State", "WorkItem", "WorkList", "back_up", "is_address", "restore"]
