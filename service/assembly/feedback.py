"""What people say of replies, and the pairs that come of it."""

from service.assembly.ground import Ground
from service.assembly.judges import Judges
from service.assembly.serving import Serving
from service.assembly.tenancy import Tenancy
from service.assembly.tuning import Tuning
from service.canary.feedback import FeedbackInbox
from service.feedback.assembly import NodeFeedback, node_feedback


def open_feedback(
    ground: Ground, judges: Judges, tenancy: Tenancy, tuning: Tuning, serving: Serving, inbox: FeedbackInbox
) -> NodeFeedback:
    """Feedback on the journal's replies, judged by the panel that rewards, as far as it answers at once; the canary's
    inbox hears of it too."""
    return node_feedback(
        ground.config,
        ground.store,
        tuning.journal,
        serving.jobs,
        tenancy.tenants,
        judges.contract,
        judges.panel.live,
        ground.metrics,
        inbox.add,
    )
