#!/bin/sh
# One answer with curl, streamed. HEARTH_HOST may name another node.
curl -sN "http://${HEARTH_HOST:-127.0.0.1:8321}/v1/chat/completions" \
  -d '{"messages": [{"role": "user", "content": "what is hearth?"}], "stream": true}'
