plugins {
    alias(libs.plugins.android.application)
    alias(libs.plugins.kotlin.android)
}

android {
    namespace = "mobilepack.demo"
    compileSdk = 34

    defaultConfig {
        applicationId = "mobilepack.demo"
        minSdk = 28
        targetSdk = 34
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
    }

    flavorDimensions += "backend"
    productFlavors {
        create("xnnpack") { dimension = "backend" }
        create("qnn") { dimension = "backend" }
    }

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    testOptions { unitTests.isIncludeAndroidResources = true }

    // Programs are mapped into memory, never unpacked.
    androidResources { noCompress += "pte" }
    // The DSP's loader opens Qualcomm's libraries by path.
    packaging { jniLibs.useLegacyPackaging = true }
}

kotlin {
    jvmToolchain(17)
}

dependencies {
    implementation(project(":harness-core"))
    testImplementation(libs.junit)
    testImplementation(libs.robolectric)
    "xnnpackImplementation"(libs.executorch)
    "qnnImplementation"(libs.executorch.qnn)
    // Newer than the one that ExecuTorch's brings: as new as the libraries that compile programs.
    "qnnImplementation"(libs.qnn.runtime)
}
