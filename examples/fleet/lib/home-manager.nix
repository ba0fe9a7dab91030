# Stands in for home-manager's own modules.
{ config, pkgs, ... }:
let
  inherit (config.home) file packages;

  fileEntry = name: {
    inherit name;
    path = file.${name}.source or (pkgs.writeText "hm-${baseNameOf name}" file.${name}.text);
  };
in
{
  home.path = pkgs.buildEnv { name = "home-manager-path"; paths = packages; };

  home.activationPackage = pkgs.linkFarm "home-manager-generation" [
    {
      name = "home-files";
      path = pkgs.linkFarm "home-manager-files" (map fileEntry (builtins.attrNames file));
    }
    {
      name = "home-path";
      path = config.home.path;
    }
  ];
}
