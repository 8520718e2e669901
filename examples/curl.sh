#!/usr/bin/env bash
# Two questions with nothing but curl: one in text, one about a picture.
#
#   export OPENAI_BASE_URL=http://HOST:8000/v1 OPENAI_API_KEY=sk-...
#   examples/curl.sh
#
# MODEL chooses another model. Needs curl and bash.
set -euo pipefail

: "${OPENAI_BASE_URL:?is not set: the address of a host or balancer, with /v1}"
: "${OPENAI_API_KEY:?is not set: a key of a client}"
model=${MODEL:-Qwen/Qwen3-VL-8B-Instruct}

# A red square of 64 x 64, as a PNG.
square=iVBORw0KGgoAAAANSUhEUgAAAEAAAABACAIAAAAlC+aJAAAAT0lEQVR42u3PQQkAAAgEsAtx/ZMZxgi+hcEKLNO+FgEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQGBywKqxUDxqh7TUQAAAABJRU5ErkJggg==

# The key goes through a file descriptor: in the arguments every user of this machine could read it.
ask() {
  local body=$1 reply
  reply=$(curl --silent --show-error --fail-with-body --max-time 120 "$OPENAI_BASE_URL/chat/completions" \
    --header @<(printf 'Authorization: Bearer %s\n' "$OPENAI_API_KEY") \
    --header 'Content-Type: application/json' --data-binary @- <<<"$body") || {
    printf 'curl.sh: %s\n' "${reply:-no answer}" >&2
    return 1
  }
  printf '%s\n' "$reply"
  # Not every machine has jq; this is enough to distinguish an answer from none.
  [[ $reply =~ \"content\":\ *\"[^\"] ]] || {
    echo "curl.sh: the model answered nothing" >&2
    return 1
  }
}

ask '{
  "model": "'"$model"'",
  "messages": [{"role": "user", "content": "What is the capital of France? Answer with one word."}],
  "max_tokens": 64,
  "temperature": 0
}'

ask '{
  "model": "'"$model"'",
  "messages": [{"role": "user", "content": [
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,'"$square"'"}},
    {"type": "text", "text": "What colour is the square? Answer with one word."}
  ]}],
  "max_tokens": 64,
  "temperature": 0
}'
