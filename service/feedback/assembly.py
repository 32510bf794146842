"""Everything of feedback that a node has, wired together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.contract import LanguageContract
from agent.feedback import Feedback
from rewards.preference import PreferencePairs
from rewards.quarantine import ChosenText
from service.config import NodeConfig
from service.feedback.desk import FeedbackDesk
from service.feedback.inspection import Inspector, WeighingPanel
from service.feedback.pairs import FeedbackPairs
from service.feedback.ports import Episodes, KeyedJobs
from service.feedback.redis_store import RedisFeedback
from service.store import Store
from service.telemetry import Metrics
from service.tenants import Tenants


@dataclass(frozen=True, slots=True)
class NodeFeedback:
    """The parts that others use."""

    desk: FeedbackDesk
    pairs: PreferencePairs
    inspector: Inspector


def node_feedback(
    config: NodeConfig,
    store: Store,
    episodes: Episodes,
    jobs: KeyedJobs,
    tenants: Tenants,
    contract: LanguageContract,
    panel: WeighingPanel,
    metrics: Metrics,
    on_kept: Callable[[Feedback], None] = lambda piece: None,
) -> NodeFeedback:
    """Feedback on the node's store and journal; ``on_kept`` hears of each new piece, as the metrics do."""

    def brand_terms(tenant: str, language: str) -> Sequence[str]:
        settings = tenants.settings(tenant, language)
        return () if settings is None else settings.brand_terms

    def hear(piece: Feedback) -> None:
        metrics.feedback.kept(piece)
        on_kept(piece)

    kept = RedisFeedback(store, config.store)
    desk = FeedbackDesk(kept, episodes, jobs, hear)
    pairs = FeedbackPairs(
        kept,
        episodes,
        config.rewards.feedback,
        ChosenText(contract, brand_terms),
        held_out_share=config.store.held_out_share,
        is_served=lambda tenant: tenants.get(tenant) is not None,
        on_weighed=metrics.feedback.weighed,
    )
    return NodeFeedback(desk, pairs, Inspector(episodes, desk, panel))
