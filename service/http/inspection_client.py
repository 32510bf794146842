"""A client of the admin route of single requests."""

from service.http.client import AdminClient, segment
from service.http.inspection_schema import RequestView


class InspectionClient(AdminClient):
    """Requests of one node. Every method raises NodeRefused."""

    def request(self, request_id: str) -> RequestView:
        """One request with its reward and feedback."""
        return self._call("GET", f"/admin/requests/{segment(request_id)}", RequestView)
