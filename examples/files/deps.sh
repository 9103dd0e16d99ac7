#!/bin/sh
set -e
cd /srv/app
cat requirements.txt
