// All jobs of a run share this machine, and Nix wants its store at /nix. So from this step on the job's
// shell is one that first enters a mount namespace, where /nix is a directory of this job alone. It stays
// the same process, as the signals of a runner demand.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const core = require('@actions/core')

const { RUNNER_TEMP, E2E_NIX, PATH } = process.env
const machine = path.join(path.dirname(RUNNER_TEMP), 'machine')
for (const dir of ['bin', 'etc', 'home', 'nix']) fs.mkdirSync(path.join(machine, dir), { recursive: true })

const { runner = [] } = JSON.parse(core.getInput('matrix') || 'null') || {}
const system = runner.includes('ubuntu-24.04-arm') ? 'system = aarch64-linux\n' : ''
fs.writeFileSync(path.join(machine, 'etc/nix.conf'), `include ${E2E_NIX}/etc/nix.conf\n${system}`)

const bash = PATH.split(':').map(dir => path.join(dir, 'bash')).find(fs.existsSync)
fs.writeFileSync(path.join(machine, 'bin/bash'), `#!/bin/sh
export HOME='${machine}/home' NIX_CONF_DIR='${machine}/etc'
exec unshare --mount sh -c 'mount --bind "$0" /nix && exec "$@"' '${machine}/nix' '${bash}' "$@"
`, { mode: 0o755 })
core.addPath(path.join(E2E_NIX, 'bin'))
core.addPath(path.join(machine, 'bin'))
