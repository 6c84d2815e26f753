#!/bin/sh
# Firefox as Playwright starts it, but for one thing: it lives on when one of its tabs is killed.
unset MOZ_CRASHREPORTER_SHUTDOWN
exec "$HOLDFAST_FIREFOX" "$@"
