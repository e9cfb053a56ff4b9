#!/bin/sh
# Takes the picture of the live page: a minute of steady traffic, the second third of it with the cache off.
#   examples/actixsqlx/picture.sh PICTURE.png [PROGRAM]
set -eu
picture=$(realpath "$1")
program=${2:-target/debug/actixsqlx}
port=${PORT:-8089}
page=http://127.0.0.1:$port

PORT=$port CACHE_URL=memory:// "$program" &
shop=$!
trap 'kill $shop' EXIT
tell() { curl -sf "$page/live/$1" -H 'content-type: application/json' -d "{\"on\": $2}"; echo; }
until curl -sf "$page/healthz" >/dev/null; do sleep 0.1; done

tell traffic true
sleep 20
tell cache false
sleep 20
tell cache true
sleep 20
# Where less motion is asked for, nothing is halfway. Behind the shop in line for the processor, so that it is not in the way.
nice -n 19 "${CACHE_KIT_CHROMIUM:-chromium}" --headless=new --no-sandbox --disable-gpu --log-level=3 \
  --hide-scrollbars --force-prefers-reduced-motion --force-device-scale-factor="${SCALE:-2}" \
  --window-size=1100,878 --virtual-time-budget=3000 --screenshot="$picture" "$page"
