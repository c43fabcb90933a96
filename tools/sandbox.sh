#!/usr/bin/env bash
# bubblewrap, which the process runtime puts around a submission: there, or installed (Debian, root), or missed aloud.
#   tools/sandbox.sh      exit code 0 if bwrap is there now, else 1
set -euo pipefail

command -v bwrap >/dev/null && exit 0
why="this is no Debian (no apt-get)"
if command -v apt-get >/dev/null; then
  why="only root may install it"
  if ((EUID == 0)); then
    why="apt could not install it"
    if { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends bubblewrap; } \
      >/dev/null 2>&1 && command -v bwrap >/dev/null; then exit 0; fi
  fi
fi
cat >&2 <<TEXT
==========================================================================================
NO SANDBOX: bubblewrap (bwrap) is not installed, and $why.
The process runtime runs submissions without walls here, and its tests are skipped, by name.
Install it: apt-get install bubblewrap, or your system's own package.
==========================================================================================
TEXT
exit 1
