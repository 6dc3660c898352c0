#!/bin/sh
# An answer with curl, printed as it comes. HEARTH_URL may name another node, and the words after it another question:
# sh examples/chat.sh who are you
question=${*:-what is hearth?}
case $question in *[\"\\]*) echo "chat.sh: ask without quotation marks and backslashes" >&2; exit 2 ;; esac

# Each event is a line, `data: ` and JSON; the last one is `data: [DONE]`.
curl --silent --show-error --no-buffer --fail-with-body \
  "${HEARTH_URL:-http://localhost:8321/v1}/chat/completions" \
  -d "{\"messages\": [{\"role\": \"user\", \"content\": \"$question\"}], \"stream\": true}" |
{
  while IFS= read -r line || [ -n "$line" ]; do
    case $line in
      'data: [DONE]') echo; exit 0 ;;
      # The first event has the role, and no text yet.
      'data: '*'"content":"",'*) ;;
      'data: '*'"content":"'*)
        text=${line#*'"content":"'}
        text=${text%'"}'*}
        # JSON's escapes are those of printf's %b, except that of the quotation mark.
        while :; do
          case $text in *'\"'*) text=${text%%'\"'*}'"'${text#*'\"'} ;; *) break ;; esac
        done
        printf %b "$text" ;;
      'data: '* | ':'* | '') ;;
      # An error, in JSON.
      *) printf '%s\n' "$line" >&2 ;;
    esac
  done
  exit 1
}
