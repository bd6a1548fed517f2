"""All events that the admin service takes."""

from dozen_admin.handlers import accounts, catalogue, keys, tasks

HANDLERS = {**accounts.HANDLERS, **keys.HANDLERS, **catalogue.HANDLERS, **tasks.HANDLERS}
