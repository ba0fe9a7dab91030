// Of patterns, only a * at the end is imitated.
'use strict'
const path = require('node:path')
const core = require('@actions/core')
const { DefaultArtifactClient } = require('@actions/artifact')

async function main() {
  // As on a GitHub Enterprise Server.
  if (process.env.NO_ARTIFACTS) throw new Error('@actions/artifact v2.0.0+, upload-artifact@v4+ and download-artifact@v4+ are not currently supported on GHES.')
  const client = new DefaultArtifactClient()
  const name = core.getInput('name')
  const pattern = core.getInput('pattern')
  const directory = path.resolve(core.getInput('path'))
  const merge = core.getBooleanInput('merge-multiple')
  if (name) {
    const { artifact } = await client.getArtifact(name) // fails if there is none
    await client.downloadArtifact(artifact.id, { path: directory })
    return
  }
  const prefix = pattern.replace(/\*$/, '')
  if (/[*?[\]{}!]/.test(prefix)) throw new Error(`pattern: not imitated: ${pattern}`)
  const { artifacts } = await client.listArtifacts({ latest: true })
  const wanted = artifacts.filter(a => pattern.endsWith('*') ? a.name.startsWith(prefix) : a.name === pattern || !pattern)
  core.info(`${wanted.length} of ${artifacts.length} artifacts: ${wanted.map(a => a.name).join(' ')}`)
  for (const artifact of wanted) {
    await client.downloadArtifact(artifact.id, { path: merge ? directory : path.join(directory, artifact.name) })
  }
}

main().catch(err => core.setFailed(err))
