"""A client of the admin routes of preference pairs, for the CLI."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from service.http.client import AdminClient, NodeRefused, refusal, segment


class PairsClient(AdminClient):
    """Preference pairs of one node."""

    @contextmanager
    def pairs(self, language: str) -> Iterator[Iterator[bytes]]:
        """A language's pairs as JSON lines, in parts as they come.

        Raises:
            NodeRefused: the node refused, or was lost before the end.
        """
        path = f"/admin/rewards/{segment(language)}/pairs"
        try:
            with self._http.stream("GET", path) as response:
                if not response.is_success:
                    response.read()
                    raise NodeRefused(refusal(response))
                yield response.iter_bytes()
        except httpx.HTTPError as error:
            raise self.lost(error) from error
