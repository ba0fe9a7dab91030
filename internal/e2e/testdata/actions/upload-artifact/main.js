// Takes a file, or all files of a directory; patterns are not imitated.
'use strict'
const fs = require('node:fs')
const path = require('node:path')
const core = require('@actions/core')
const { DefaultArtifactClient, ArtifactNotFoundError } = require('@actions/artifact')

async function main() {
  // As on a GitHub Enterprise Server.
  if (process.env.NO_ARTIFACTS) throw new Error('@actions/artifact v2.0.0+, upload-artifact@v4+ and download-artifact@v4+ are not currently supported on GHES.')
  const client = new DefaultArtifactClient()
  const name = core.getInput('name')
  const file = core.getInput('path', { required: true })
  const missing = core.getInput('if-no-files-found')
  const level = Number(core.getInput('compression-level'))
  if (!['warn', 'error', 'ignore'].includes(missing)) throw new Error(`if-no-files-found: ${missing}`)
  if (!(level >= 0 && level <= 9)) throw new Error(`compression-level: ${level}`)
  if (/[*?[\]\n]/.test(file)) throw new Error(`path: patterns are not imitated: ${file}`)
  if (!fs.existsSync(file)) {
    const message = `No files were found with the provided path: ${file}. No artifacts will be uploaded.`
    if (missing === 'error') throw new Error(message)
    if (missing === 'warn') core.warning(message)
    return
  }
  if (core.getBooleanInput('overwrite')) {
    try {
      await client.deleteArtifact(name)
    } catch (err) {
      if (!(err instanceof ArtifactNotFoundError)) throw err
    }
  } else if ((await client.listArtifacts()).artifacts.some(artifact => artifact.name === name)) {
    // act's server would take it
    throw new Error('(409) Conflict: an artifact with this name already exists on the workflow run')
  }
  const files = fs.statSync(file).isDirectory()
    ? fs.readdirSync(file, { recursive: true, withFileTypes: true })
      .filter(entry => entry.isFile() && !entry.name.startsWith('.')).map(entry => path.join(entry.parentPath || entry.path, entry.name))
    : [file]
  const root = fs.statSync(file).isDirectory() ? file : path.dirname(file)
  await client.uploadArtifact(name, files, root, { compressionLevel: level })
}

main().catch(err => core.setFailed(err))
