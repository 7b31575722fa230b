# npm without a network: packs, installs from a tarball and from a folder, runs scripts.
set -euo pipefail
mkdir -p world/app greet shout
export npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
export npm_config_loglevel=error
echo '{"name": "greet", "version": "1.0.0", "bin": {"greet": "cli.js"}, "scripts": {"postinstall": "node -e 0"}}' >greet/package.json
printf '#!/usr/bin/env node\nconsole.log("hello from a tarball");\n' >greet/cli.js
echo '{"name": "shout", "version": "1.0.0"}' >shout/package.json
echo 'module.exports = (text) => text.toUpperCase();' >shout/index.js
(cd greet && npm pack --silent)
cd world/app
echo '{"name": "app", "version": "1.0.0", "private": true, "scripts": {"start": "greet && node main.js"}}' >package.json
echo 'console.log(require("shout")("from a folder"));' >main.js
npm install --silent ../../greet/greet-1.0.0.tgz ../../shout
npm start --silent
rm -f node_modules/.package-lock.json package-lock.json
