# Stands in for `import nixpkgs`: the packages that this fleet takes from there.
# Each is a file of a plausible size that refers to the libraries it would use.
{ system, overlays }:
let
  pkgs = builtins.foldl' (prev: overlay: prev // overlay pkgs prev) nixpkgs overlays;

  callPackage =
    file: overrides:
    let
      package = import file;
    in
    package (builtins.intersectAttrs (builtins.functionArgs package) pkgs // overrides);

  inherit (pkgs.stdenv) mkDerivation;
  package =
    pname: version: size: buildInputs:
    mkDerivation { inherit pname version size buildInputs; };

  nixpkgs = with pkgs; import ./stdenv.nix { inherit system pkgs; } // {
    inherit system callPackage;

    gcc = mkDerivation {
      pname = "gcc";
      version = "14.2.1";
      size = 400;
      nativeBuildInputs = [ ];
      buildInputs = [ ];
    };
    openssl = mkDerivation {
      pname = "openssl";
      version = "3.3.2";
      size = 400;
      outputs = [ "out" "doc" "man" ];
    };

    glibc = package "glibc" "2.40" 600 [ ];
    zlib = package "zlib" "1.3.1" 100 [ glibc ];
    linuxPackages.kernel = package "linux" "6.6.63" 1000 [ ];
    systemd = package "systemd" "256.8" 500 [ glibc openssl ];

    firefox = package "firefox" "132.0.1" 2000 [ glibc openssl zlib ];
    git = package "git" "2.47.0" 300 [ glibc openssh zlib ];
    mosquitto = package "mosquitto" "2.0.20" 200 [ glibc openssl ];
    neovim = package "neovim" "0.10.2" 300 [ glibc ];
    nginx = package "nginx" "1.26.2" 200 [ glibc openssl zlib ];
    openssh = package "openssh" "9.9p1" 300 [ glibc openssl zlib ];
    postgresql = package "postgresql" "16.5" 400 [ glibc openssl zlib ];
    sway = package "sway" "1.10" 300 [ glibc systemd ];
  };
in
pkgs
