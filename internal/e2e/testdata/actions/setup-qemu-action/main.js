'use strict'
const fs = require('node:fs')
const core = require('@actions/core')

if (core.getInput('platforms') !== 'arm64') {
  core.setFailed('only arm64 can be emulated here')
} else if (!/@sha256:[0-9a-f]{64}$/.test(core.getInput('image')) || core.getBooleanInput('cache-image')) {
  core.setFailed('anybody could have changed the image, which is run privileged')
} else {
  try {
    fs.writeFileSync('/proc/sys/fs/binfmt_misc/register', process.env.E2E_BINFMT)
    core.info('registered')
  } catch (err) {
    // On GitHub, jobs don't share a kernel. Here, another one may have come first.
    if (err.code !== 'EEXIST') core.setFailed(err)
    core.info('registered by another job')
  }
}
