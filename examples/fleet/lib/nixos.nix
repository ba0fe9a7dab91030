# Stands in for NixOS's own modules: turns the options that these hosts set into
# the derivations that NixOS makes of them.
{ config, pkgs, ... }:
let
  inherit (config) networking services system;
  inherit (config.boot.kernelPackages) kernel;
  inherit (config.environment) etc systemPackages;

  etcEntry = name: {
    inherit name;
    path = etc.${name}.source or (pkgs.writeText "etc-${baseNameOf name}" etc.${name}.text);
  };
  unitEntry = name: {
    name = "${name}.service";
    path = pkgs.writeText "unit-${name}.service" ''
      [Service]
      ExecStart=${pkgs.${name}}
      Environment=SETTINGS=${builtins.toJSON services.${name}}
    '';
  };
  enabled = builtins.filter (name: services.${name}.enable) (builtins.attrNames services);
in
{
  hardware.firmware = [ ];

  environment.etc."systemd/system".source = pkgs.linkFarm "system-units" (map unitEntry enabled);

  system.path = pkgs.buildEnv { name = "system-path"; paths = systemPackages; };

  system.build.etc = pkgs.linkFarm "etc" (map etcEntry (builtins.attrNames etc));

  # Holds the modules, and does not refer to the kernel they came from.
  system.build.initialRamdisk = pkgs.stdenv.mkDerivation {
    pname = "initrd-linux";
    inherit (kernel) version;
    inherit kernel;
    modules = config.boot.initrd.availableKernelModules;
    buildInputs = [ ];
    size = 200;
  };

  system.build.toplevel =
    pkgs.runCommandLocal "nixos-system-${networking.hostName}-${system.stateVersion}"
      {
        inherit kernel;
        inherit (config.hardware) firmware;
        inherit (system.build) etc initialRamdisk;
        inherit (pkgs) systemd;
        sw = system.path;
      }
      ''
        {
          echo "$name for $system, built on $machine"
          for part in $kernel $initialRamdisk $systemd $etc $sw $firmware; do
            echo "part $part"
          done
        } > "$out"
      '';
}
