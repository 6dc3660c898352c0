#!/bin/sh
# One answer with curl, streamed. HEARTH_URL may name another node.
curl --silent --show-error --no-buffer --fail-with-body \
  "${HEARTH_URL:-http://localhost:8321/v1}/chat/completions" \
  -d '{"messages": [{"role": "user", "content": "what is hearth?"}], "stream": true}'
