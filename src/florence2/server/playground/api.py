"""What the application is handed of the page."""

from __future__ import annotations

from florence2.server.http.api import Api
from florence2.server.playground.page_files import ASSETS_PATH, FILES
from florence2.server.playground.routes import CONFIG_PATH, PREFIX, front_page, router

API = Api(
    router=router,
    prefixes=(PREFIX,),
    # The page has to be there before its reader can type a key, so the list of its files is open too.
    open_paths=frozenset({CONFIG_PATH, *(f"{ASSETS_PATH}/{name}" for name in FILES.names)}),
    is_offered=lambda settings: settings.playground,
    front_page=front_page,
)
