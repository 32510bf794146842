"""What people say of replies, and the pairs that come of it."""

from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.assembly.serving import Serving
from service.assembly.tenancy import Tenancy
from service.assembly.tuning import Tuning
from service.feedback.assembly import NodeFeedback, node_feedback


def open_feedback(ground: Ground, judges: Judges, tenancy: Tenancy, tuning: Tuning, serving: Serving) -> NodeFeedback:
    """Feedback on the journal's replies, judged by the panel that rewards."""
    return node_feedback(
        ground.config,
        ground.store,
        tuning.journal,
        serving.jobs,
        tenancy.tenants,
        judges.contract,
        judges.panel,
        ground.metrics,
    )
