# Makes derivations for a builder that has a shell and nothing else.
{ system, pkgs }:
let
  # A busybox in shells/ takes the place of /bin/sh. With one for a foreign
  # system, the builds for that system are really emulated. Its directory goes
  # into the store, since a busybox must be called busybox.
  shells = ../shells + "/${system}";
  hasBusybox = builtins.pathExists (shells + "/busybox");

  build =
    { name, meta ? { }, ... }@attrs:
    derivation ({
      inherit system;
      builder = if hasBusybox then "${shells}/busybox" else "/bin/sh";
      args = (if hasBusybox then [ "sh" ] else [ ]) ++ [ "-eu" ./builder.sh ];
      seed = "0x" + builtins.substring 0 15 (builtins.hashString "sha256" name);
    } // removeAttrs attrs [ "meta" ])
    // { inherit meta; };
in
rec {
  # Takes the size in KiB as well as the usual attributes. The compiler is needed to
  # build, and nothing refers to it afterwards.
  stdenv.mkDerivation =
    { pname, version, ... }@attrs:
    build ({
      name = "${pname}-${version}";
      outputs = [ "out" ];
      nativeBuildInputs = [ pkgs.gcc ];
      buildInputs = [ pkgs.glibc ];
      buildCommand = "compile";
    } // attrs);

  runCommand = name: env: buildCommand: build ({ inherit name buildCommand; } // env);

  # Quicker to make than to fetch, so substituters are not asked.
  runCommandLocal =
    name: env: runCommand name ({ preferLocalBuild = true; allowSubstitutes = false; } // env);

  writeText = name: text: runCommandLocal name { inherit text; } ''printf %s "$text" > "$out"'';

  # Lists of links, where nixpkgs makes directories of them.
  linkFarm =
    name: entries:
    writeText name (
      builtins.concatStringsSep "" (map (entry: "${entry.name} -> ${entry.path}\n") entries)
    );
  buildEnv =
    { name, paths }:
    linkFarm name (map (path: { name = "bin/${path.name}"; inherit path; }) paths);
}
