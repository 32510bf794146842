"""Webhooks: events out to the tenants' receivers, and calls in from automation platforms.

    event ─► Deliveries.enqueue ─► queue in the store ─► Couriers: pace, sign, send ─► receiver
                                        ▲    retry schedule, leases   │
                                        └─────────────────────────────┘
    platform ─► Hooks: find, verify ─► Mapping: payload to brief ─► the same answer as POST /v1/content

Knows nothing of FastAPI: routes are in service.http.webhooks and service.http.hooks.
"""
