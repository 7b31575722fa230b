# npm without a network: installs from a tarball and from a folder; what it put there is run.
set -euo pipefail
mkdir -p world/app package shout
export npm_config_offline=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
export npm_config_loglevel=error
echo '{"name": "greet", "version": "1.0.0", "bin": {"greet": "cli.js"}, "scripts": {"postinstall": "echo ran > ran"}}' >package/package.json
printf '#!/usr/bin/env node\nconsole.log("hello from a tarball");\n' >package/cli.js
tar -czf greet-1.0.0.tgz package
echo '{"name": "shout", "version": "1.0.0"}' >shout/package.json
echo 'module.exports = (text) => text.toUpperCase();' >shout/index.js
cd world/app
echo '{"name": "app", "version": "1.0.0", "private": true}' >package.json
echo 'console.log(require("shout")("from a folder"));' >main.js
npm install --silent ../../greet-1.0.0.tgz ../../shout
node_modules/.bin/greet
node main.js
cat node_modules/greet/ran
rm -f node_modules/.package-lock.json package-lock.json
